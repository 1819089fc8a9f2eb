"""The two kinds of trouble that a command reports in one line instead of a traceback."""


class UserError(Exception):
    """Input that cannot be used: the message says what was given and what is accepted.

    The command line prints the message and ends with exit status 2. Not a ValueError, which the
    library that parses the command line would catch and put into a frame.
    """


class DamagedFile(UserError):
    """A file that is truncated, altered, of another format version or of another task."""


class RunFailed(RuntimeError):
    """Work that could not be finished (disk full, a chunk that fails every time, a loss of NaN).

    What was finished before is kept. The command line prints the message and ends with
    exit status 1.
    """
