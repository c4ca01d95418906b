"""The errors a user can meet. A message says what, where, and what to do."""


class PrefbenchError(Exception):
    """Anything prefbench refuses or fails at for a reason it can name."""


class CheckpointError(PrefbenchError):
    """A checkpoint directory that cannot be read or must not be loaded."""


class TaskError(PrefbenchError):
    """A task or suite that is unknown or whose YAML is wrong."""


class DataError(PrefbenchError):
    """A data set that is missing, unreadable or not what the task expects."""


class EngineError(PrefbenchError):
    """An engine that could not be started or gave an answer that is no number."""


class JudgeError(PrefbenchError):
    """A judge that is unknown, whose YAML is wrong, or that failed as a whole."""


class StoreError(PrefbenchError):
    """A results directory that cannot be read or written."""


class LostError(PrefbenchError):
    """A claimed cell that another process has taken over: its own now, and no failure."""


class ClusterError(PrefbenchError):
    """A cluster that cannot be reached, or whose nodes cannot do the work."""


class InputError(PrefbenchError):
    """An argument that makes no sense, from the command line or from Python."""


class StoppedError(EngineError):
    """An engine's process that crashed or hung; a fresh one may succeed."""


class UnsuitableError(EngineError):
    """A checkpoint that an engine does not know or cannot do right; another engine may."""
