"""The one error that users see."""


class UserError(Exception):
    """Something the user can mend. The message names the thing (file, field, topic) and the remedy.

    The command line prints it without a traceback and exits with status 1; a node logs it, counts it and goes on.
    """
