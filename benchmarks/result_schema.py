"""Write the JSON Schema of `results.json` into the package: python benchmarks/result_schema.py"""

from __future__ import annotations

from pathlib import Path

from vfbench.report import results
from vfbench.utils import files

if __name__ == "__main__":
    files.write_json(Path(results.__file__).with_name("result.schema.json"), results.Result.model_json_schema())
