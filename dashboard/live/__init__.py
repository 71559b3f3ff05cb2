"""What is kept in memory while the dashboard runs: event hub, activity, jobs."""
