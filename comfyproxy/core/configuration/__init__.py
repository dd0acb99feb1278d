"""From the sources of a configuration to a `comfyproxy.core.config.Config`.

`options` (with `health_options`) is the one table of what can be set, each an `option` of a `kinds`;
`commandline`, `dotenv` and `tapconf` (with `tomllines`) are where it is said, `settings` which of them
counts. `addresses` (with `urls` and `jsonarray`) reads lists of servers, `loading` puts all together, and
`diagnostics` says where a mistake is.
"""
