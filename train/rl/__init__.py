"""Reinforcement learning: rollouts, rewards, advantages, and the training loop of an iteration."""
