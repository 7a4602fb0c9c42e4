import requests
import json
# Set up constants
API_KEY = "YOUR_API_KEY"
ENDPOINT = "https://api.decagon.ai/conversation/export"
HEADERS = {
    "Authorization": f"Bearer {API_KEY}"
}
# Either set cursor to 0, or set it to be the latest value
# of cursor from a prior call
cursor = 0
while True:
    params = {
        "cursor": cursor
    }
    # Make request and parse response
    response = requests.get(ENDPOINT, headers=HEADERS, params=params)
    response.raise_for_status()
    response = response.json()
    # Use response["conversations"] and save results
    pass
    # Update cursor
    cursor = response['next_cursor']
    if not cursor:
        break
