"""The planner: chips, hours, watts and dollars for training, serving and reinforcement learning, from first principles. No torch."""
