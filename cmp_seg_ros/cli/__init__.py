"""The `cmp-seg` command: one file per group of subcommands."""
