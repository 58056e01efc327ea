/*
 * Licensed under the Apache License, Version 2.0 (the "License");
 * you may not use this file except in compliance with the License.
 * You may obtain a copy of the License at
 *
 *     http://www.apache.org/licenses/LICENSE-2.0
 *
 * Unless required by applicable law or agreed to in writing, software
 * distributed under the License is distributed on an "AS IS" BASIS,
 * WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
 * See the License for the specific language governing permissions and
 * limitations under the License.
 */
package io.stopover.trino.client;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.core.JsonToken;

import java.io.IOException;
import java.io.InputStream;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/**
 * A small JSON object of a response, held as a map. Access to a member that is missing or has
 * another type throws a {@link MalformedJsonException} that names the member.
 */
final class JsonMap
{
    private static final JsonFactory FACTORY = new JsonFactory();

    private final Map<String, Object> members;

    private JsonMap(Map<String, Object> members)
    {
        this.members = members;
    }

    static JsonMap parse(byte[] json)
            throws MalformedJsonException
    {
        try (JsonParser parser = FACTORY.createParser(json)) {
            return next(parser).orElseThrow(
                    () -> new MalformedJsonException("expected JSON, found an empty response"));
        }
        catch (MalformedJsonException e) {
            throw e;
        }
        catch (IOException e) {
            throw new MalformedJsonException("not JSON: " + e.getMessage(), e);
        }
    }

    static JsonParser parser(InputStream in)
            throws IOException
    {
        return FACTORY.createParser(in);
    }

    /** The next object of a stream of objects; empty at its end. */
    static Optional<JsonMap> next(JsonParser parser)
            throws IOException
    {
        try {
            JsonToken token = parser.nextToken();
            if (token == null) {
                return Optional.empty();
            }
            if (token != JsonToken.START_OBJECT) {
                throw new MalformedJsonException("expected a JSON object, found " + token);
            }
            return Optional.of(new JsonMap(readObject(parser)));
        }
        catch (JsonProcessingException e) {
            throw new MalformedJsonException("not JSON: " + e.getMessage(), e);
        }
    }

    boolean has(String name)
    {
        return members.get(name) != null;
    }

    String string(String name)
            throws MalformedJsonException
    {
        return member(name, String.class);
    }

    long integer(String name)
            throws MalformedJsonException
    {
        return member(name, Long.class);
    }

    boolean bool(String name)
            throws MalformedJsonException
    {
        return member(name, Boolean.class);
    }

    JsonMap object(String name)
            throws MalformedJsonException
    {
        @SuppressWarnings("unchecked")
        Map<String, Object> nested = member(name, Map.class);
        return new JsonMap(nested);
    }

    List<JsonMap> objects(String name)
            throws MalformedJsonException
    {
        List<JsonMap> objects = new ArrayList<>();
        for (Object element : member(name, List.class)) {
            if (!(element instanceof Map)) {
                throw new MalformedJsonException(
                        "expected an array of objects in JSON member '%s'".formatted(name));
            }
            @SuppressWarnings("unchecked")
            Map<String, Object> object = (Map<String, Object>) element;
            objects.add(new JsonMap(object));
        }
        return objects;
    }

    List<String> strings(String name)
            throws MalformedJsonException
    {
        List<String> strings = new ArrayList<>();
        for (Object element : member(name, List.class)) {
            if (!(element instanceof String string)) {
                throw new MalformedJsonException(
                        "expected an array of strings in JSON member '%s'".formatted(name));
            }
            strings.add(string);
        }
        return strings;
    }

    List<long[]> integerPairs(String name)
            throws MalformedJsonException
    {
        List<long[]> pairs = new ArrayList<>();
        for (Object element : member(name, List.class)) {
            if (!(element instanceof List<?> pair && pair.size() == 2
                    && pair.get(0) instanceof Long first && pair.get(1) instanceof Long second)) {
                throw new MalformedJsonException(
                        "expected pairs of numbers in JSON member '%s'".formatted(name));
            }
            pairs.add(new long[] {first, second});
        }
        return pairs;
    }

    private <T> T member(String name, Class<T> type)
            throws MalformedJsonException
    {
        Object value = members.get(name);
        if (!type.isInstance(value)) {
            String found = value == null ? "none" : value.getClass().getSimpleName();
            throw new MalformedJsonException("expected JSON member '%s' of type %s, found %s"
                    .formatted(name, type.getSimpleName(), found));
        }
        return type.cast(value);
    }

    private static Map<String, Object> readObject(JsonParser parser)
            throws IOException
    {
        Map<String, Object> object = new HashMap<>();
        while (parser.nextToken() != JsonToken.END_OBJECT) {
            String name = parser.currentName();
            parser.nextToken();
            object.put(name, readValue(parser));
        }
        return object;
    }

    private static Object readValue(JsonParser parser)
            throws IOException
    {
        return switch (parser.currentToken()) {
            case VALUE_STRING -> parser.getText();
            case VALUE_NUMBER_INT -> parser.getLongValue();
            case VALUE_NUMBER_FLOAT -> parser.getDoubleValue();
            case VALUE_TRUE -> true;
            case VALUE_FALSE -> false;
            case VALUE_NULL -> null;
            case START_OBJECT -> readObject(parser);
            case START_ARRAY -> {
                List<Object> values = new ArrayList<>();
                while (parser.nextToken() != JsonToken.END_ARRAY) {
                    values.add(readValue(parser));
                }
                yield values;
            }
            default -> throw new MalformedJsonException(
                    "unexpected JSON token " + parser.currentToken());
        };
    }
}
