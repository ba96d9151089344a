"""The configs: package data, found by name through a3gan.config.find_config."""
