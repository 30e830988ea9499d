"""What can be wrong with an input, told apart from what can be wrong with Quire."""


class InputError(Exception):
    """The file is at fault: encrypted, truncated, not what it claims to be, beyond a stated limit.

    The message is one sentence that a user reads in the result, so it says what is wrong and, where
    there is something to do, what to do. The asset stores it with the document and carries on.
    """


class BudgetError(Exception):
    """One item does not fit the memory budget of its op, however small the batch.

    Attributes:
        budget_mb: The budget that was granted.
        needed_mb: The budget that would do, as far as it can be told.
    """

    def __init__(self, message: str, *, budget_mb: float, needed_mb: float) -> None:
        super().__init__(message)
        self.budget_mb = budget_mb
        self.needed_mb = needed_mb


_OUT_OF_MEMORY = (
    "can't allocate memory",
    "not enough memory",
    "insufficient memory",
    "failed to allocate",
    "bad_alloc",
    "could not create a memory",
    "could not create a primitive",
)
"""How torch's allocator, OpenCV, ONNX Runtime, C++ and oneDNN say it; numpy raises MemoryError."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that an allocation failed, in the words of the libraries used here."""
    words = str(error).lower()
    return isinstance(error, MemoryError) or any(sign in words for sign in _OUT_OF_MEMORY)
