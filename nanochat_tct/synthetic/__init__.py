"""Invented GitHub Actions workflows: a small template language, a library of steps, and what puts them together."""
