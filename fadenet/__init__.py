"""FaDeNet: an encoder-decoder that reproduces the face while an identity critic stops recognising it."""
