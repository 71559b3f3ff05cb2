"""``registry-backend audit``: find where a program reads and writes registry files."""
