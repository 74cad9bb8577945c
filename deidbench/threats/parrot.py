"""T2: the attacker knows the method and treats the gallery too."""

from ._embedded import EmbeddedThreat


class Parrot(EmbeddedThreat):
    """Treated probes against a gallery treated alike (Newton, Sweeney, Malin 2005)."""

    id = "T2"
    title = "parrot"
    summary = "Treated probes against a gallery that the attacker treated with the same method."
    enrolled = "treated"
    probe = "treated"
