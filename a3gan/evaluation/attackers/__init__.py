"""Attackers that learn from a method's output on other people; `attack.attack` runs them."""
