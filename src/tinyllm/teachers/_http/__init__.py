"""HTTP: one client for all endpoints that speak the OpenAI protocol."""
