"""Alerts, their tests and dashboards for Prometheus and Grafana, and what writes them."""
