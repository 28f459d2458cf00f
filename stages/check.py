"""Check the whole of params.yaml: ``python -m stages.check``.

Every stage does so when it starts; as a stage of its own it also finds a key that no stage reads.
"""

from stages import command, load_study


def main() -> None:
    """Stop with a list of all that is wrong in params.yaml, if anything is."""
    load_study()


if __name__ == "__main__":
    command(main)
