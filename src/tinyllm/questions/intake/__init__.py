"""From a question file of any shape to a reading that is proven on its rows; for `tinyllm init`.

    shapes       a path → tables of rows: what the bytes are (compression, encoding, separator, sheets, splits)
    understand   rows → which column is what, and how the answer is given, with the proof
    reading      a proven reading → questions

A run never guesses: it reads what `init` has written down.
"""
