"""The verbs of `python -m msmrec`: a module each, whose `main` takes the words after the verb."""
