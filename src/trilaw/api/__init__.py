"""The public functions, one file a group; `import trilaw` offers them under their names, each loaded when it is first used."""
