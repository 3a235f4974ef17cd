"""The way in: lines, radio, who asks and who listens, and what is counted of each device."""
