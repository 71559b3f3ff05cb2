"""What API and pages show: summary, migration, reviews, system, logs."""
