"""A parameter with its rows or columns in another order."""

from harness.kinds.step import Array


class Rows:
    """Rows are taken when a part of them is asked for: a vocabulary has many."""

    def __init__(self, parameter: Array, order: Array) -> None:
        self.dtype, self.shape = parameter.dtype, parameter.shape
        self._parameter, self._order = parameter, order

    def __getitem__(self, rows: Array) -> Array:
        return self._parameter[self._order[rows]]

    def astype(self, dtype: Array, copy: bool = True) -> Array:
        return self._parameter[self._order].astype(dtype, copy=copy)


class Columns:
    """Columns are taken of those rows that are asked for."""

    def __init__(self, parameter: Array, order: Array) -> None:
        self.dtype, self.shape = parameter.dtype, parameter.shape
        self._parameter, self._order = parameter, order

    def __getitem__(self, rows: Array) -> Array:
        return self._parameter[rows][:, self._order]

    def astype(self, dtype: Array, copy: bool = True) -> Array:
        return self._parameter[:, self._order].astype(dtype, copy=copy)
