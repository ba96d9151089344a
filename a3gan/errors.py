"""The one exception that a user is meant to read."""


class UserError(Exception):
    """Bad input: one clear line that names the file or key, what is wrong and what to do.

    The command line prints it without a traceback and exits non-zero; ``--debug`` shows the traceback.
    """


class NotWritten(UserError):
    """A file could not be written: the disk is full, the folder read-only, the quota used up. What was there is whole.

    Training goes on after one and tries again; every other command ends with it.
    """
