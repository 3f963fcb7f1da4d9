"""A language server for workflow files: what GitHub complains of, hover and completion, from the rules alone or a model."""
