"""Files that are whole or absent, on this machine and in object storage. Imports nothing of the package but errors."""
