"""The leaderboard scored, and what is made of it."""
