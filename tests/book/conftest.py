"""nbval's set-up. Name tests/book on the command line beside notebooks, so that pytest reads it."""

import os

OUTPUT_TIMEOUT = 120
os.environ["TQDM_DISABLE"] = "1"  # read by the kernels too


def pytest_collection_modifyitems(items):
    """Give a cell's outputs longer than nbval's five seconds to arrive on a busy machine."""
    for item in items:
        if hasattr(item, "output_timeout"):
            item.output_timeout = OUTPUT_TIMEOUT
