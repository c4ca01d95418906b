"""Claims of cells on an object store, beside those within the working copy."""

from __future__ import annotations

from pathlib import Path

from prefbench.beats import BeatingLease
from prefbench.buckets.bucket import Bucket
from prefbench.errors import StoreError


class ObjectClaim:
    """A cell, or a judge, that no other machine works at, until it is given back."""

    def __init__(self, bucket: Bucket, cell: str | None, lease: BeatingLease | None) -> None:
        self._bucket = bucket
        self._cell = cell
        self._lease = lease

    def is_ours(self) -> bool:
        """Whether the lease holds; without one, as the store is away, nothing can tell."""
        return self._lease is None or self._lease.is_ours()

    def release(self) -> None:
        """Uploads what there is of it, then lets others have it."""
        if self._cell is None:
            self._bucket.share_verdicts()
        else:
            self._bucket.push_cell(self._cell)
        if self._lease is not None:
            self._lease.release()


class ObjectClaims:
    """Leases on the object store; while that is away, cells are measured without."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    def take(self, cell: str, folder: Path) -> ObjectClaim | None:
        """The claim of a cell, with all that others have done of it; None while another has it.

        Of what is no cell, a judge, the claim comes with the verdicts of others.
        """
        bucket, is_cell = self._bucket, folder.parent.name == "cells"
        lease = None
        if bucket.away is None:
            try:
                lease = bucket.leases.take(f"cell-{cell}" if is_cell else cell)
                if lease is None:
                    return None
                if is_cell:
                    bucket.refresh(cell)
                else:
                    bucket.pull(anew=True)
            except StoreError as error:
                bucket.gone(str(error))
        return ObjectClaim(bucket, cell if is_cell else None, lease)
