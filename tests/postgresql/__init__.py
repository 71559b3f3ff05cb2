"""Tests on real PostgreSQL servers, which the test run starts itself."""
