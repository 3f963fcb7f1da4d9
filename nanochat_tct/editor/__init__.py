"""A language server for workflow files: diagnostics, hover and completion, from the rules or a checkpoint."""
