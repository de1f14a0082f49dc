"""What is remembered of slices that were proved, for as long as their files stay as they were."""

from compute_market.hashing.files import FileIdentity

_GENERATION = 8192


class ProofCache:
    """Proofs of one workload by file identity, for the last 8 192 to 16 384 files.

    Two generations: once the younger is full it replaces the older. This forgets what was not
    asked for lately, and needs no record of the order in which it was.
    """

    def __init__(self) -> None:
        self._younger: dict[FileIdentity, bytes] = {}
        self._older: dict[FileIdentity, bytes] = {}

    def get(self, identity: FileIdentity) -> bytes | None:
        digest = self._younger.get(identity)
        if digest is None and (digest := self._older.get(identity)) is not None:
            self.put(identity, digest)
        return digest

    def put(self, identity: FileIdentity, digest: bytes) -> None:
        if len(self._younger) >= _GENERATION:
            self._older, self._younger = self._younger, {}
        self._younger[identity] = digest
