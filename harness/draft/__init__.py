"""A draft of an adapter, by the names and the shapes of a model. Only `goldens init` imports it."""
