"""What `make import` writes beside the input tables."""

from schemas.ingested import rejected

REJECTED_IMPORTS = rejected("imports")

IMPORTS = (REJECTED_IMPORTS,)
