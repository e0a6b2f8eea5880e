"""Names in a Core ML artefact's folder."""

PACKAGE = "model.mlpackage"
# How the package was made, for building it again.
SETTINGS = "package.json"
