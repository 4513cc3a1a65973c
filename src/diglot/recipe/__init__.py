"""From a YAML file to finished artifacts: schema, plan, run."""
