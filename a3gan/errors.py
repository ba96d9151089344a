"""The one exception that a user is meant to read."""


class UserError(Exception):
    """Bad input: one clear line that names the file or key, what is wrong and what to do.

    The command line prints it without a traceback and exits non-zero; ``--debug`` shows the traceback.
    """
