"""One routing table for several servers, in Redis or Valkey: ``--storage-backend redis://…``.

docs/architecture.md says how it works, and docs/storage.md what it promises. Imported after monkey
patching only; needs the extra ``[redis]``.
"""
