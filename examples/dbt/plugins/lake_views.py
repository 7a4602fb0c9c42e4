"""Makes the views of `decagon-lake views --engine duckdb` in dbt's database, anew for each run of dbt.

So the sources have each column with its type, whatever the lake's format and partitions are, also before its first sync.
"""

from dbt.adapters.duckdb.plugins import BasePlugin

import decagon_lake


class Plugin(BasePlugin):
    """A plugin of dbt-duckdb."""

    def initialize(self, plugin_config):
        """Takes the plugin's `config` of profiles.yml."""
        self.lake = plugin_config["lake"]

    def configure_connection(self, conn):
        """Runs once, after extensions and secrets are loaded."""
        decagon_lake.connect(self.lake, connection=conn)
