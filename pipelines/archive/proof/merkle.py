"""A Merkle tree after RFC 6962: a short proof that an entry is one of those that a root stands for.

The path to the root holds hashes of other entries, never those entries. `evidence/verify.py` checks a path.
"""

from collections.abc import Iterable
from hashlib import sha256


def leaf_hash(leaf: bytes) -> bytes:
    """Return the hash of an entry. Nodes are hashed with another prefix, so neither can pass for the other."""
    return sha256(b"\x00" + leaf).digest()


class MerkleTree:
    """The tree over these leaf hashes, in their order: about 130 bytes for each."""

    def __init__(self, leaves: Iterable[bytes]) -> None:
        level = list(leaves)
        self._levels = [level]
        while len(level) > 1:
            pairs = zip(level[::2], level[1::2], strict=False)
            # The last node of an odd number has no partner, and moves up unchanged.
            level = [sha256(b"\x01" + left + right).digest() for left, right in pairs] + level[len(level) & ~1 :]
            self._levels.append(level)

    @property
    def size(self) -> int:
        """The number of leaves."""
        return len(self._levels[0])

    @property
    def root(self) -> str:
        """The root, in hex; without leaves, the SHA-256 of the empty string."""
        return self._levels[-1][0].hex() if self.size else sha256(b"").hexdigest()

    def path(self, index: int) -> list[str]:
        """Return the hashes, in hex, that lead from the leaf with that index (from 0) to the root, nearest first."""
        path = []
        for level in self._levels[:-1]:
            if (sibling := index ^ 1) < len(level):
                path.append(level[sibling].hex())
            index //= 2
        return path
