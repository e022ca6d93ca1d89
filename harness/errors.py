"""What can go wrong by a user's hand, by the data or by the machine: each with its exit code and no traceback."""


class HarnessError(Exception):
    """A fault that a user can mend. The message names the thing, shows what came and says what would do."""

    exit_code = 1


class UserError(HarnessError, ValueError):
    """A wrong name, value or combination in a study, a spec or on the command line."""

    exit_code = 2


class DataError(HarnessError):
    """A data set that is missing or is not what it should be."""

    exit_code = 3


class MachineError(HarnessError):
    """Something that the machine lacks or holds: a device, a port, a lock, a tracking server."""

    exit_code = 4
