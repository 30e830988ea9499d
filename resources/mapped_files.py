"""Files in memory: pages of them that were looked at once need not stay.

An encoder's weights are mapped, and of its table of words only those that occur are read. But the
system maps what lies around each page that is touched, so after a dozen queries a process holds the
whole table, 44 MB for the default encoder, although the file is in the system's cache anyway.
Letting go of them costs nothing: what is needed again is found there.
"""

import ctypes
import re
from pathlib import Path

_DONTNEED = 4
_MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) r")


class MappedFiles:
    """The mappings of files whose names end in a certain way, in this process.

    Pages that were changed in memory would be lost with the change. So once, at the first call, it
    is made sure that none was: who maps weights reads them. Does nothing where there is no
    ``/proc``.
    """

    def __init__(self, ending: str) -> None:
        self._ending = ending
        self._only_read: bool | None = None

    def let_go(self) -> int:
        """Let go of their pages; how many bytes are mapped of them."""
        try:
            if self._only_read is None:
                self._only_read = self._is_only_read()
            if not self._only_read:
                return 0
            libc, mapped = ctypes.CDLL(None), 0
            for line in Path("/proc/self/maps").read_text(errors="replace").splitlines():
                if line.endswith(self._ending) and (found := _MAPPING.match(line)):
                    start, end = (int(number, 16) for number in found.groups())
                    libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _DONTNEED)
                    mapped += end - start
            return mapped
        except (OSError, AttributeError):
            return 0

    def _is_only_read(self) -> bool:
        """Whether no page of them was changed in memory."""
        ours = False
        for line in Path("/proc/self/smaps").read_text(errors="replace").splitlines():
            if line.endswith(self._ending):
                ours = True
            elif ours and line.startswith("Anonymous:"):
                if line.split()[1] != "0":
                    return False
                ours = False
        return True
