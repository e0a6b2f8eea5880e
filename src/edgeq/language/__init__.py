"""Language models compared: methods and formats, what they cost and keep, and which one to ship."""
