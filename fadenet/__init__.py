"""FaDeNet: an encoder-decoder that keeps the face while an identity critic loses the person."""
