"""The contract as tests: ``pytest --pyargs contract_tests --registry-backend NAME``."""
