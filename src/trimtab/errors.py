"""Every error that trimtab raises on purpose.

    TrimtabError                 shown to people as one sentence, exit code 2 on the command line
    ├── InputError               an argument is not valid: what was given, what is valid
    ├── FileError                a file is missing, damaged or of another kind
    ├── MismatchError            two things do not belong together (SAE and model, recipe and model)
    ├── UnsupportedError         a combination that cannot be right is refused
    ├── StorageError             the disk is full or cannot be written
    └── WorkerError              a worker of a run on many machines died, again and again

Anything else that escapes is a bug in trimtab.
"""


class TrimtabError(Exception):
    """Base of all errors that are meant to be read by the person who caused them."""


class InputError(TrimtabError, ValueError):
    """An argument is not valid."""


class FileError(TrimtabError):
    """A file or folder is missing, damaged, or not of the expected kind."""


class MismatchError(TrimtabError):
    """Two artefacts do not belong together, such as an SAE and a model."""


class UnsupportedError(TrimtabError):
    """The request is understood but cannot be carried out correctly."""


class StorageError(TrimtabError):
    """The disk is full or not writable; nothing half-written was left behind."""


class WorkerError(TrimtabError):
    """The workers of a run die, or there are none; what is done is kept."""
