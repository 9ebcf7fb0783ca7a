"""Recipes: stages run in order, stopped and resumed at any moment, and reported."""
