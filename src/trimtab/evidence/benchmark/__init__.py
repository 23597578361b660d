"""The steering benchmark: concepts x methods x KL budgets, judged by witnesses that no method has seen."""
