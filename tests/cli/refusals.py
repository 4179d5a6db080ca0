"""What every mistake on the command line has in common."""


def refused(said, *words: str) -> None:
    """Check that a command ended with one message that has these words, and with exit code 2."""
    assert said.code == 2, (said.code, said.err)
    assert "Traceback" not in said.err
    assert "Error: " in said.err
    assert said.out == ""
    for word in words:
        assert word in said.err, f"{word!r} is not in:\n{said.err}"
