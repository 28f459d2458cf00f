"""The rows of a prediction as Parquet, CSV or ndjson: parts, and the table that joins them.

In CSV a list, a mapping or an object is JSON. In Parquet a mapping is a map, an object a struct.
"""

import csv
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel

from ostinato.errors import SourceError

Row = Mapping[str, Any]
SUFFIXES = (".parquet", ".csv", ".ndjson")
SCALARS = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}


def check_suffix(path: Path) -> str:
    """The suffix of an output.

    Raises:
        SourceError: it is none of a table.
    """
    if path.suffix not in SUFFIXES:
        raise SourceError(f"{path}: expected an output that ends with {', '.join(SUFFIXES)}")
    return path.suffix


def write(path: Path, rows: Sequence[Row], columns: Mapping[str, Any]) -> None:
    """Write a part; the suffix of the path says how.

    Args:
        path: of the part.
        rows: with all columns.
        columns: the types.
    """
    if path.suffix == ".parquet":
        schema = pa.schema([(name, arrow_type(hint)) for name, hint in columns.items()])
        arrays = [
            pa.array([_arrow(row[field.name], field.type) for row in rows], field.type)
            for field in schema
        ]
        pq.write_table(pa.Table.from_arrays(arrays, schema=schema), path, compression="zstd")
    elif path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerows([_cell(row[name]) for name in columns] for row in rows)
    else:
        with path.open("wb") as file:
            for row in rows:
                ordered = {name: row[name] for name in columns}
                file.write(orjson.dumps(ordered, option=orjson.OPT_APPEND_NEWLINE))


def join(parts: Sequence[Path], path: Path, columns: Mapping[str, Any]) -> None:
    """Write the table of all parts, one part in memory at a time."""
    if path.suffix == ".parquet":
        schema = pa.schema([(name, arrow_type(hint)) for name, hint in columns.items()])
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            for part in parts:
                writer.write_table(pq.read_table(part, schema=schema, partitioning=None))
        return
    with path.open("wb") as file:
        if path.suffix == ".csv":
            file.write((",".join(columns) + "\n").encode())
        for part in parts:
            with part.open("rb") as content:
                shutil.copyfileobj(content, file)


def arrow_type(hint: Any) -> pa.DataType:
    """The type of Parquet's column for a field of a response."""
    if hint in SCALARS:
        return SCALARS[hint]
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        (hint,) = (each for each in arguments if each is not type(None))
        return arrow_type(hint)
    if origin is Literal:
        return arrow_type(type(arguments[0]))
    if origin is list:
        return pa.list_(arrow_type(arguments[0]))
    if origin is dict:
        return pa.map_(arrow_type(arguments[0]), arrow_type(arguments[1]))
    assert issubclass(hint, BaseModel), hint
    return pa.struct(
        [(name, arrow_type(field.annotation)) for name, field in hint.model_fields.items()]
    )


def _arrow(value: Any, kind: pa.DataType) -> Any:
    """A value as Arrow reads it: a map is a list of pairs."""
    if value is None or not pa.types.is_nested(kind):
        return value
    if pa.types.is_map(kind):
        pairs = value.items()
        if not pa.types.is_nested(kind.item_type):
            return list(pairs)
        return [(key, _arrow(each, kind.item_type)) for key, each in pairs]
    if pa.types.is_list(kind) and pa.types.is_nested(kind.value_type):
        return [_arrow(each, kind.value_type) for each in value]
    if pa.types.is_struct(kind):
        return {field.name: _arrow(value[field.name], field.type) for field in kind}
    return value


def _cell(value: Any) -> Any:
    if isinstance(value, bool | list | tuple | dict):
        return orjson.dumps(value).decode()
    return value
